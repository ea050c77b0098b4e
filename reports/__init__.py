"""What came of it: funnel, attribution, charts, the report e-mail."""
