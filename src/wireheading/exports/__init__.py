"""Records, transcripts and adapters in the shapes of other tools, for those who use them already.

May import `study`, `tasks`, `inputs` and `records`; never torch or the engine. The workflow needs none of it.
"""
