//! Backups over HTTP: a shop that is taken while it sells, and put into a new cluster.

use super::{PATIENCE, Shop, order, tasks::Tasks};
