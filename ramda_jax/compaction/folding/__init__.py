"""Units that are constants: what they add to a sum becomes a part of its bias, after which nothing reads them."""
