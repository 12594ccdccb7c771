//! The client against a scripted agent.

mod events;
mod files;
mod input;
mod joining;
mod silent;
