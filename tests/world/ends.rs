//! It ends when it is told to, however it is told, and after any number of requests.
