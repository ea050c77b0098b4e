"""What and when: schema, loading with line numbers, checks, planning, calendars, firing."""
