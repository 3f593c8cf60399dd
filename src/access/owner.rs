//! Resources that only their owner may change.

use super::{Identity, Role};

/// A client that creates or changes resources which have an owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Actor {
    /// Owner of what the client creates; empty without authentication.
    pub(crate) owner: String,
    /// May change the resources of others.
    pub(crate) is_admin: bool,
}

impl Actor {
    /// A request without an identity has no rights on the resources of others.
    pub(crate) fn of(identity: Option<&Identity>) -> Self {
        Self {
            owner: identity.map(Identity::owner).unwrap_or_default().to_owned(),
            is_admin: identity.is_some_and(|identity| identity.has(Role::Admin)),
        }
    }

    /// Returns true if the client may change a resource of this owner; everyone may change one
    /// without an owner.
    pub(crate) fn may_change(&self, owner: &str) -> bool {
        self.is_admin || owner.is_empty() || owner == self.owner
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::access::{Limits, Roles};

    fn actor(name: &str, role: Role) -> Actor {
        let (roles, revoked) = (Roles::from_iter([role]), CancellationToken::new());
        let identity = Identity::new(name.to_owned(), roles, Limits::default(), None, revoked);
        Actor::of(Some(&identity))
    }

    #[test]
    fn owner_and_administrators_may_change_a_resource() {
        let ada = actor("ada", Role::Trainer);
        assert_eq!(ada.owner, "ada");
        assert!(ada.may_change("ada"));
        assert!(ada.may_change(""));
        assert!(!ada.may_change("eve"));
        assert!(!actor("eve", Role::Deployer).may_change("ada"));
        assert!(actor("root", Role::Admin).may_change("ada"));
        let anonymous = Actor::of(Some(&Identity::anonymous()));
        assert_eq!(anonymous.owner, "");
        assert!(anonymous.may_change("ada"));
        assert!(!Actor::of(None).may_change("ada"));
    }
}
