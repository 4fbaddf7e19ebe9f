"""Transcripts in the forms that people use: one small module for each format.

A writer takes transcripts in time and a scope, and yields the text of the file piece by piece, so
that years of transcripts need no more memory than minutes; the html page alone is made whole.
"""
