"""What comes back by mail and from SMS gateways: doors that keep it raw, parsers, and the reader of the inbox."""
