"""Session descriptions: what is said on the wire (``description``) and what two sides agree on (``negotiation``)."""
