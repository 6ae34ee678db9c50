//! Gossip: finds peers, spreads small metadata, and hints that a node is gone.
//!
//! GOSSIP-NEVER-OWNS: nothing here decides ownership, votes or the roster; those change only
//! through Raft. Consumers may treat what they see here as a hint and nothing more.
