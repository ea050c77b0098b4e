"""The HTTP client of the SMS channels: knows for every request whether it may have left."""
