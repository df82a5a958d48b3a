"""The report's first page and the page of transcripts."""
