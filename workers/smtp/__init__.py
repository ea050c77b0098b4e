"""The SMTP engine: replies, meaning, envelopes, handshake and dialogue, all pure; and what carries them."""
