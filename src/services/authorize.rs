//! Checks of rights that depend on the fields of a request. The table of the server has the role
//! that each method requires.

use http::Extensions;
use tonic::Status;

use super::status;
use crate::access::{Identity, Role};

/// Refuses clients without this role. `action` is what the request asks for, in a few words.
///
/// # Errors
/// PERMISSION_DENIED.
pub(super) fn require(extensions: &Extensions, role: Role, action: &str) -> Result<(), Status> {
    if has(extensions, role) {
        return Ok(());
    }
    Err(status::role_required(&[role], action))
}

/// False for a request whose identity was not checked.
pub(super) fn has(extensions: &Extensions, role: Role) -> bool {
    let identity = extensions.get::<Identity>();
    identity.is_some_and(|identity| identity.has(role))
}

/// Requires the role `admin` if one of the paths on the server's disk is given, because the server
/// may read files that its clients may not.
pub(super) fn require_for_paths(
    extensions: &Extensions,
    paths: &[Option<&str>],
) -> Result<(), Status> {
    let is_given = paths.iter().flatten().any(|path| !path.is_empty());
    if is_given {
        require(extensions, Role::Admin, "a path on the server's disk")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::access::{Limits, Roles};

    #[test]
    fn paths_require_an_administrator() {
        let mut extensions = Extensions::new();
        assert!(
            require(&extensions, Role::Viewer, "x").is_err(),
            "without an identity"
        );
        let roles = Roles::from_iter([Role::Trainer, Role::Deployer]);
        let identity = Identity::new(
            "ci".to_owned(),
            roles,
            Limits::default(),
            None,
            CancellationToken::new(),
        );
        extensions.insert(identity);
        assert!(require(&extensions, Role::Deployer, "x").is_ok());
        assert!(require_for_paths(&extensions, &[None, Some("")]).is_ok());
        let refused = require_for_paths(&extensions, &[None, Some("/data")]).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::PermissionDenied);
        assert!(
            refused.message().contains("role admin"),
            "{}",
            refused.message()
        );
        extensions.insert(Identity::anonymous());
        assert!(require_for_paths(&extensions, &[Some("/data")]).is_ok());
    }
}
