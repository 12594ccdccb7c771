//! The client against a scripted agent.

mod events;
mod input;
mod joining;
mod silent;
