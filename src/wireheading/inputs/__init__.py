"""What runs read: models, fetched and checked; items, frozen and read; the embedded corpus.

May import `study` and `tasks`.
"""
