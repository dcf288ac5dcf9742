"""Conversions that several modules need."""

GPA_PER_EV_ANG3 = 160.2176634  # exact since 2019: the elementary charge is 1.602176634e-19 C
