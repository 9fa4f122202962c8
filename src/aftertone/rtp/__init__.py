"""RTP and RTCP: arrays of datagrams in, columns and masks out. A payload is bytes; what it sounds like is not known here."""
