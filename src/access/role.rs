//! The roles, and what each includes.

use std::fmt;

/// A set of rights. The table of the server names the role of each method and page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// Metrics, and readiness with details.
    Metrics,
    /// Reads everything but predictions: trainings, versions, datasets, the server.
    Viewer,
    /// Predicts, and reads the metadata of models.
    Predictor,
    /// Views, predicts, trains and evaluates; uploads datasets and registers versions.
    Trainer,
    /// Chooses the version that is served.
    Deployer,
    /// Everything, paths on the server's disk and deletion included.
    Admin,
}

impl Role {
    pub(crate) const ALL: [Self; 6] = [
        Self::Metrics,
        Self::Viewer,
        Self::Predictor,
        Self::Trainer,
        Self::Deployer,
        Self::Admin,
    ];

    /// The name in the token file and in messages.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Viewer => "viewer",
            Self::Predictor => "predictor",
            Self::Trainer => "trainer",
            Self::Deployer => "deployer",
            Self::Admin => "admin",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == name)
    }

    /// The roles whose rights this role has too, in addition to its own.
    fn includes(self) -> &'static [Self] {
        match self {
            Self::Metrics | Self::Viewer | Self::Predictor => &[],
            Self::Trainer | Self::Deployer => &[Self::Viewer, Self::Predictor],
            Self::Admin => &Self::ALL,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of roles.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Roles(u8);

impl Roles {
    pub(crate) fn has(self, role: Role) -> bool {
        self.0 & bit(role) != 0
    }

    fn iter(self) -> impl Iterator<Item = Role> {
        Role::ALL.into_iter().filter(move |role| self.has(*role))
    }
}

impl FromIterator<Role> for Roles {
    /// The roles with all that they include.
    fn from_iter<T: IntoIterator<Item = Role>>(roles: T) -> Self {
        let roles = roles.into_iter();
        Self(roles.fold(0, |bits, role| {
            let included = role.includes().iter().map(|role| bit(*role));
            included.fold(bits | bit(role), |bits, bit| bits | bit)
        }))
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.iter().map(Role::as_str).collect();
        f.write_str(&names.join(", "))
    }
}

fn bit(role: Role) -> u8 {
    1 << role as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_include_others() {
        let expected = [
            (Role::Metrics, "metrics"),
            (Role::Viewer, "viewer"),
            (Role::Predictor, "predictor"),
            (Role::Trainer, "viewer, predictor, trainer"),
            (Role::Deployer, "viewer, predictor, deployer"),
            (
                Role::Admin,
                "metrics, viewer, predictor, trainer, deployer, admin",
            ),
        ];
        for (role, included) in expected {
            assert_eq!(Roles::from_iter([role]).to_string(), included);
            assert_eq!(Role::parse(role.as_str()), Some(role));
        }
        assert_eq!(Roles::default().to_string(), "");
        assert_eq!(Role::parse("root"), None);
        let both = Roles::from_iter([Role::Metrics, Role::Trainer]);
        assert_eq!(both.to_string(), "metrics, viewer, predictor, trainer");
    }
}
