"""What trains a subject: target transforms, learning-rate schedules, averaging, checkpoints, loop.

Each part is usable alone and says how often it ran (`calls`), so that a setting which never reached
the training can be told from one that did. torch is imported where it is used.
"""
