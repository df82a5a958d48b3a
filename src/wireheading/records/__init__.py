"""What is kept of a run: its record, its transcripts, where it comes from; and the published study's results.

May import `study` and `tasks`; never torch or the engine.
"""
