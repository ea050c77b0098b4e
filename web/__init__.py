"""What comes back over HTTP: links, pixel, preference pages, ingest API, gateway callbacks."""
