"""Who: the segment language, RFM, refresh."""
