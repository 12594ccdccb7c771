//! That the runner notices what is wrong.
