"""What a study is: its configuration, its conditions, its paths and its random numbers.

May import `tasks`, whose names and fields a configuration is checked against.
"""
