"""Units that are constants: their terms of a sum are moved into its bias, and then nothing reads them."""
