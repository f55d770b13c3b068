"""All other architectures: dense and generative nets, and nets of pairs, sets, experts and graphs."""
