//! The resolver of agents with network mode `egress`.
//!
//! One [`serve`] for each agent, on sockets that stand in the agent's own network: who asks is known by the socket. A question
//! goes on only when its name is one of the agent's, is put anew (no byte of the agent's but the name leaves), and is for
//! addresses; the answer goes back only with addresses that were admitted, after they were. Nothing is remembered between
//! questions, so there is no cache to poison.

mod answer;
mod budget;
mod question;
mod server;
mod upstream;

pub use server::{Admit, Refused, serve};
pub use upstream::Upstream;
