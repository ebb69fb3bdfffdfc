"""Networks without a network: an emulated link for real sockets, and the commands that run several programs."""
