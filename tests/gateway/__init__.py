"""The gateway, over real sockets, on a network of whole peers in this process."""
