"""Peers among peers: the transport seam, adverts, conversations and the exchange of content."""
