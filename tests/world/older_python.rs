//! A hit on Python 3.13 and older.
