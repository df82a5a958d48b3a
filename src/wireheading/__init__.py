"""Do language models wirehead when they grade themselves and the grade is their reward?"""
