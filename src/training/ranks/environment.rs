//! The environment in which launchers start the processes of a training.
//!
//! - torchrun, PyTorchJob: `RANK` and `WORLD_SIZE`; rank 0 at `MASTER_ADDR`, `MASTER_PORT`.
//! - Kubeflow Trainer: `PET_NODE_RANK`, `PET_NNODES` and `PET_NPROC_PER_NODE`; rank 0 at
//!   `PET_MASTER_ADDR`, `PET_MASTER_PORT`.
//! - Open MPI: `OMPI_COMM_WORLD_RANK` and `…_SIZE`; rank 0 on this machine if `…_LOCAL_SIZE` is
//!   equal.
//! - MPICH, Intel MPI: `PMI_RANK` and `PMI_SIZE`; rank 0 on this machine if `MPI_LOCALNRANKS` is
//!   equal.
//! - Slurm: `SLURM_PROCID` and `SLURM_NTASKS`; rank 0 on the first host of `SLURM_STEP_NODELIST`.
//!
//! `MASTER_ADDR` and `MASTER_PORT` apply to all launchers if they are set.

use std::num::NonZeroU16;

use super::slurm_hosts::first_host;

/// A process that a launcher started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Launch {
    /// From 0.
    pub(crate) rank: usize,
    /// Number of ranks; at least 2.
    pub(crate) count: usize,
    /// Name or address of rank 0's machine.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// The launcher listens at this address, so rank 0 is a client as the others.
    pub(crate) is_hosted: bool,
    /// Differs between launches, also of one job.
    pub(crate) group: String,
}

/// An environment that does not identify the process.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum EnvironmentError {
    #[error(
        "the launcher sets {name} but not {missing}; start the worker with the launcher itself"
    )]
    Missing {
        name: &'static str,
        missing: &'static str,
    },
    #[error("{name} must be {rule}, got {value:?}")]
    Value {
        name: &'static str,
        rule: &'static str,
        value: String,
    },
    #[error("rank {rank} is not below the number of ranks, {count}")]
    Rank { rank: usize, count: usize },
    #[error(
        "the ranks are on several machines; pass MASTER_ADDR, the name of rank 0's machine, and MASTER_PORT to all of them (mpirun -x MASTER_ADDR -x MASTER_PORT)"
    )]
    Remote,
}

/// The variables with the rank of a process. A server in a job of its own must not pass them to a
/// worker, which would wait for the other tasks of that job.
pub(crate) fn rank_variables() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().map(|family| family.rank)
}

const RANK: &str = "RANK";
const WORLD_SIZE: &str = "WORLD_SIZE";
const MASTER_ADDR: &str = "MASTER_ADDR";
const MASTER_PORT: &str = "MASTER_PORT";
const AGENT_STORE: &str = "TORCHELASTIC_USE_AGENT_STORE";
const PET_PROCESSES: &str = "PET_NPROC_PER_NODE";
/// The default of PyTorch's launchers.
const TORCH_PORT: u16 = 29500;
/// Ports for launchers that choose none: below the range from which Linux chooses ports itself.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// The variables of one family of launchers.
struct Family {
    rank: &'static str,
    count: &'static str,
    place: Place,
}

/// The source of rank 0's address.
enum Place {
    Torch,
    Kubeflow,
    Slurm,
    /// With the variable of the number of ranks on this machine.
    Mpi(&'static str),
}

/// The first one whose variables are set counts: torchrun may itself run in a job of Slurm.
const FAMILIES: [Family; 5] = [
    Family {
        rank: RANK,
        count: WORLD_SIZE,
        place: Place::Torch,
    },
    Family {
        rank: "PET_NODE_RANK",
        count: "PET_NNODES",
        place: Place::Kubeflow,
    },
    Family {
        rank: "OMPI_COMM_WORLD_RANK",
        count: "OMPI_COMM_WORLD_SIZE",
        place: Place::Mpi("OMPI_COMM_WORLD_LOCAL_SIZE"),
    },
    Family {
        rank: "PMI_RANK",
        count: "PMI_SIZE",
        place: Place::Mpi("MPI_LOCALNRANKS"),
    },
    Family {
        rank: "SLURM_PROCID",
        count: "SLURM_NTASKS",
        place: Place::Slurm,
    },
];

/// The launch of this process; `None` without a launcher, or with one process only. `variable`
/// looks up the environment, `parent` is the id of the parent process.
///
/// # Errors
/// A variable that is missing or has no meaning.
pub(crate) fn launch(
    variable: impl Fn(&str) -> Option<String>,
    parent: u32,
) -> Result<Option<Launch>, EnvironmentError> {
    let variables = Variables(&variable);
    let family = FAMILIES
        .iter()
        .find(|family| variables.text(family.rank).is_some());
    let Some(family) = family else {
        return Ok(None);
    };
    let Some(rank) = variables.number(family.rank)? else {
        return Ok(None);
    };
    let count = variables.number(family.count)?;
    let count = count.ok_or(EnvironmentError::Missing {
        name: family.rank,
        missing: family.count,
    })?;
    if rank >= count {
        return Err(EnvironmentError::Rank { rank, count });
    }
    if count == 1 {
        return Ok(None);
    }
    let group = group(&family.place, &variables, parent);
    let (host, port) = address(family, &variables, count, &group)?;
    Ok(Some(Launch {
        rank,
        count,
        host,
        port,
        is_hosted: variables
            .text(AGENT_STORE)
            .is_some_and(|text| text == "True"),
        group,
    }))
}

/// The environment of a process.
struct Variables<'a>(&'a dyn Fn(&str) -> Option<String>);

impl Variables<'_> {
    /// `None` if it is not set or empty.
    fn text(&self, name: &str) -> Option<String> {
        (self.0)(name).filter(|text| !text.is_empty())
    }

    fn number(&self, name: &'static str) -> Result<Option<usize>, EnvironmentError> {
        let parse = |text: String| {
            text.parse().map_err(|_| EnvironmentError::Value {
                name,
                rule: "a number of processes",
                value: text,
            })
        };
        self.text(name).map(parse).transpose()
    }

    fn port(&self, name: &'static str) -> Result<Option<u16>, EnvironmentError> {
        let parse = |text: String| {
            let port = text.parse::<NonZeroU16>().map(NonZeroU16::get);
            port.map_err(|_| EnvironmentError::Value {
                name,
                rule: "a port from 1 to 65535",
                value: text,
            })
        };
        self.text(name).map(parse).transpose()
    }
}

fn group(place: &Place, variables: &Variables<'_>, parent: u32) -> String {
    let text = |name| variables.text(name).unwrap_or_default();
    match place {
        Place::Torch => format!(
            "torch-{}-{}",
            text("TORCHELASTIC_RUN_ID"),
            text("TORCHELASTIC_RESTART_COUNT")
        ),
        Place::Kubeflow => "kubeflow".to_owned(),
        Place::Slurm => format!("slurm-{}.{}", text("SLURM_JOB_ID"), text("SLURM_STEP_ID")),
        // Processes on one machine have the same parent: the launcher or its proxy.
        Place::Mpi(_) if variables.text(MASTER_ADDR).is_none() => format!("mpi-{parent}"),
        Place::Mpi(_) => "mpi".to_owned(),
    }
}

/// The host and the port of rank 0.
fn address(
    family: &Family,
    variables: &Variables<'_>,
    count: usize,
    group: &str,
) -> Result<(String, u16), EnvironmentError> {
    let derived = PORTS.start + (crc32fast::hash(group.as_bytes()) % PORTS.len() as u32) as u16;
    let (host, port) = (variables.text(MASTER_ADDR), variables.port(MASTER_PORT)?);
    let required = |missing| EnvironmentError::Missing {
        name: family.rank,
        missing,
    };
    match &family.place {
        Place::Torch => Ok((
            host.ok_or_else(|| required(MASTER_ADDR))?,
            port.unwrap_or(TORCH_PORT),
        )),
        Place::Kubeflow => {
            if let Some(processes) = variables.text(PET_PROCESSES)
                && !["1", "auto", "cpu", "gpu"].contains(&processes.as_str())
            {
                return Err(EnvironmentError::Value {
                    name: PET_PROCESSES,
                    rule: "1, or start the worker with torchrun",
                    value: processes,
                });
            }
            let named = variables.text("PET_MASTER_ADDR");
            let host = named.or(host).ok_or_else(|| required("PET_MASTER_ADDR"))?;
            let named = variables.port("PET_MASTER_PORT")?;
            Ok((host, named.or(port).unwrap_or(TORCH_PORT)))
        }
        Place::Slurm => {
            let nodes = variables.text("SLURM_STEP_NODELIST");
            let first = || nodes.as_deref().and_then(first_host);
            let host = host.or_else(first);
            let host = host.ok_or_else(|| required("SLURM_STEP_NODELIST"))?;
            Ok((host, port.unwrap_or(derived)))
        }
        Place::Mpi(local_count) => {
            let is_local = variables.number(local_count)? == Some(count);
            match (host, port) {
                (Some(host), Some(port)) => Ok((host, port)),
                (host, port) if is_local => Ok((
                    host.unwrap_or_else(|| "127.0.0.1".to_owned()),
                    port.unwrap_or(derived),
                )),
                _ => Err(EnvironmentError::Remote),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: u32 = 4711;

    fn launched(variables: &[(&str, &str)]) -> Result<Option<Launch>, EnvironmentError> {
        let find = |name: &str| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        launch(find, PARENT)
    }

    /// Rank, count, host, port, hosted by the launcher.
    fn parts(variables: &[(&str, &str)]) -> (usize, usize, String, u16, bool) {
        let found = launched(variables).unwrap().unwrap();
        (
            found.rank,
            found.count,
            found.host,
            found.port,
            found.is_hosted,
        )
    }

    #[test]
    fn torchrun_is_recognized_also_in_a_job_of_slurm() {
        let variables = [
            ("RANK", "3"),
            ("WORLD_SIZE", "4"),
            ("LOCAL_RANK", "1"),
            ("LOCAL_WORLD_SIZE", "2"),
            ("MASTER_ADDR", "node1"),
            ("MASTER_PORT", "40103"),
            ("TORCHELASTIC_USE_AGENT_STORE", "True"),
            ("TORCHELASTIC_RUN_ID", "none"),
            ("TORCHELASTIC_RESTART_COUNT", "2"),
            ("SLURM_PROCID", "0"),
            ("SLURM_NTASKS", "2"),
        ];
        assert_eq!(parts(&variables), (3, 4, "node1".to_owned(), 40103, true));
        let group = launched(&variables).unwrap().unwrap().group;
        assert_eq!(group, "torch-none-2");
        assert_eq!(parts(&variables[..5]).3, 29500);
    }

    #[test]
    fn kubeflow_has_one_process_for_each_node() {
        let variables = [
            ("PET_NODE_RANK", "1"),
            ("PET_NNODES", "2"),
            ("PET_MASTER_ADDR", "train-0.train"),
            ("PET_MASTER_PORT", "29400"),
            ("PET_NPROC_PER_NODE", "auto"),
        ];
        let expected = (1, 2, "train-0.train".to_owned(), 29400, false);
        assert_eq!(parts(&variables), expected);
        let mut several = variables;
        several[4].1 = "4";
        let error = launched(&several).unwrap_err().to_string();
        assert!(error.contains("torchrun"), "{error}");
    }

    #[test]
    fn slurm_has_a_port_for_each_step_and_the_first_host() {
        let step = |step: &str| {
            parts(&[
                ("SLURM_PROCID", "2"),
                ("SLURM_NTASKS", "4"),
                ("SLURM_LOCALID", "0"),
                ("SLURM_STEP_NODELIST", "node[07-09,12],other"),
                ("SLURM_JOB_ID", "31"),
                ("SLURM_STEP_ID", step),
            ])
        };
        let first = step("0");
        assert_eq!((first.0, first.1), (2, 4));
        assert_eq!(first.2, "node07");
        assert!(PORTS.contains(&first.3));
        assert_eq!(step("0").3, first.3);
        assert_ne!(step("1").3, first.3);
    }

    #[test]
    fn mpi_ranks_of_one_machine_need_no_address_and_others_do() {
        let names = [
            [
                "OMPI_COMM_WORLD_RANK",
                "OMPI_COMM_WORLD_SIZE",
                "OMPI_COMM_WORLD_LOCAL_SIZE",
            ],
            ["PMI_RANK", "PMI_SIZE", "MPI_LOCALNRANKS"],
        ];
        for [rank, count, local_count] in names {
            let mut variables = vec![(rank, "1"), (count, "2"), (local_count, "2")];
            let found = launched(&variables).unwrap().unwrap();
            assert_eq!((found.rank, found.count), (1, 2));
            assert_eq!(
                (found.host.as_str(), found.group.as_str()),
                ("127.0.0.1", "mpi-4711")
            );
            variables[2].1 = "1";
            assert_eq!(launched(&variables), Err(EnvironmentError::Remote));
            variables.extend([("MASTER_ADDR", "node1"), ("MASTER_PORT", "4000")]);
            let found = launched(&variables).unwrap().unwrap();
            assert_eq!((found.host.as_str(), found.port), ("node1", 4000));
            // The parent differs between machines.
            assert_eq!(found.group, "mpi");
        }
    }

    #[test]
    fn one_process_or_none_is_not_a_launch() {
        assert_eq!(launched(&[]), Ok(None));
        assert_eq!(launched(&[("MASTER_ADDR", "node1")]), Ok(None));
        assert_eq!(launched(&[("RANK", "0"), ("WORLD_SIZE", "1")]), Ok(None));
    }

    #[test]
    fn mistakes_name_the_variable() {
        let text = |variables: &[(&str, &str)]| launched(variables).unwrap_err().to_string();
        assert!(text(&[("RANK", "0")]).contains("but not WORLD_SIZE"));
        assert!(text(&[("RANK", "0"), ("WORLD_SIZE", "2")]).contains("MASTER_ADDR"));
        assert!(text(&[("RANK", "x"), ("WORLD_SIZE", "2")]).contains("RANK must be"));
        assert!(text(&[("RANK", "2"), ("WORLD_SIZE", "2")]).contains("rank 2"));
        for port in ["70000", "0"] {
            let variables = [
                ("RANK", "0"),
                ("WORLD_SIZE", "2"),
                ("MASTER_ADDR", "a"),
                ("MASTER_PORT", port),
            ];
            assert!(text(&variables).contains(&format!("{port:?}")));
        }
    }

    #[test]
    fn each_family_has_a_rank_of_its_own() {
        let mut names: Vec<&str> = rank_variables().collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FAMILIES.len());
    }
}
