//! Checks of rights that depend on the fields of a request. The table of the server has the role
//! that each method requires.

use http::Extensions;
use tonic::Status;

use super::{caller, status};
use crate::{
    access::{Actor, Identity, Role},
    datasets::uploads::Scope,
};

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

/// The client of a request, as the owner of what it creates.
pub(super) fn actor(extensions: &Extensions) -> Actor {
    Actor::of(extensions.get::<Identity>())
}

/// The uploads that a client may use: all for an administrator, otherwise those of its identity.
pub(super) fn uploads(extensions: &Extensions) -> Scope {
    match extensions.get::<Identity>() {
        Some(identity) if identity.has(Role::Admin) => Scope::All,
        Some(identity) if identity.is_authenticated() => {
            Scope::Client(caller::authenticated(identity).as_str().to_owned())
        }
        // Contains no upload.
        _ => Scope::Client(String::new()),
    }
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

    fn identity(roles: &[Role]) -> Identity {
        Identity::new(
            "ci".to_owned(),
            roles.iter().copied().collect::<Roles>(),
            Limits::default(),
            None,
            CancellationToken::new(),
        )
    }

    #[test]
    fn uploads_are_those_of_the_identity_except_for_an_administrator() {
        let mut extensions = Extensions::new();
        let none = Scope::Client(String::new());
        assert_eq!(uploads(&extensions), none);
        extensions.insert(Identity::none());
        assert_eq!(uploads(&extensions), none);
        extensions.insert(identity(&[Role::Trainer]));
        assert_eq!(
            uploads(&extensions),
            Scope::Client("identity ci".to_owned())
        );
        extensions.insert(identity(&[Role::Admin]));
        assert_eq!(uploads(&extensions), Scope::All);
        extensions.insert(Identity::anonymous());
        assert_eq!(uploads(&extensions), Scope::All);
    }

    #[test]
    fn paths_require_an_administrator() {
        let mut extensions = Extensions::new();
        assert!(
            require(&extensions, Role::Viewer, "x").is_err(),
            "without an identity"
        );
        extensions.insert(identity(&[Role::Trainer, Role::Deployer]));
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
