//! Finds the network within a file: the dictionary of tensors, and the prefix that all of its names
//! share.
//!
//! Training scripts nest a state dict in dictionaries, beside other state dicts, and wrappers
//! prefix every name (`module.` of `DataParallel`, `_orig_mod.` of `torch.compile`). Exactly one
//! place in the file may fit the network. Otherwise the error lists the places, and the key of the
//! request selects one.
//!
//! `choose` searches, `explain` describes why nothing fits, and `groups` holds their common types.

mod choose;
mod explain;
mod groups;

pub(super) use choose::choose;
pub(super) use explain::instead_of_tensors;
pub(super) use groups::{Group, NonTensor, Selection, TOP};
