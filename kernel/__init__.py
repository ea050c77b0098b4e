"""Words every room shares: errors, vocabulary, clock, ids, signing, settings, strict YAML."""
