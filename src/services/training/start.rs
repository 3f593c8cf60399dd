use std::{collections::BTreeMap, path::Path, time::Duration};

use prost::Message;
use sha2::{Digest, Sha256};
use tonic::{Request, Status};

use super::api::TrainingApi;
use crate::{
    access::Role,
    dataset::{self, Roots},
    model::{
        init::{self, Init},
        weights,
    },
    names,
    proto::{
        v1,
        validation::{Check, Violation},
    },
    services::{authorize, dataset_input, status, task::read_files},
    store::RequestId,
    training::{estimate, spec::Spec},
};

/// Concurrent dry runs; each may scan a dataset.
pub(crate) const MAX_VALIDATIONS: usize = 4;
/// Files of initial weights that are read at once; each may need twice
/// [`MAX_FILE_BYTES`](crate::model::weights::MAX_FILE_BYTES) of memory. Further calls wait.
pub(crate) const MAX_WEIGHTS_CHECKS: usize = 2;

/// Requests to the hub at once.
pub(crate) const MAX_HUB_CHECKS: usize = 16;
/// Longest wait for a response of the hub.
const HUB_TIMEOUT: Duration = Duration::from_secs(3);

/// A request without violations.
pub(super) struct Checked {
    pub(super) spec: Spec,
    /// The origin of initial weights from a file; empty for other weights.
    pub(super) init_source: String,
}

/// The request, if the rights of its client suffice. A client that may not choose the served
/// version trains without promotion unless it asks for it.
pub(super) fn permitted(
    request: Request<v1::StartTrainingRequest>,
) -> Result<v1::StartTrainingRequest, Status> {
    let (_, extensions, mut request) = request.into_parts();
    let Some(spec) = &mut request.spec else {
        return Ok(request);
    };
    let dataset = spec.dataset.as_ref().map(|dataset| dataset.path.as_str());
    let init = spec.init.as_ref().map(|init| init.path.as_str());
    authorize::require_for_paths(&extensions, &[dataset, init])?;
    match spec.promote() {
        v1::Promote::Never => {}
        v1::Promote::Unspecified if authorize::has(&extensions, Role::Deployer) => {}
        v1::Promote::Unspecified => spec.set_promote(v1::Promote::Never),
        v1::Promote::Always | v1::Promote::IfBetter => {
            authorize::require(&extensions, Role::Deployer, "spec.promote other than NEVER")?;
        }
    }
    Ok(request)
}

impl TrainingApi {
    /// Performs all checks that do not read images. Reports all violations at once, except that
    /// initial weights are checked only if there are no others.
    pub(super) async fn check(
        &self,
        request: &v1::StartTrainingRequest,
    ) -> Result<Checked, Status> {
        let mut given = request.spec.clone().unwrap_or_default();
        let mut check = Check::default();
        let mut is_located = true;
        if let Some(dataset) = &mut given.dataset {
            let prefix = "spec.dataset.";
            is_located =
                dataset_input::resolve_name(&self.store, dataset, prefix, &mut check).await?;
        }
        if let Some(init) = &mut given.init {
            self.locate_version(init, &mut check).await?;
        }
        check_metadata(request, &mut check);
        let dataset = given.dataset.as_ref().map(|dataset| &dataset.path);
        let field = "spec.dataset.path";
        let dataset = resolve(&self.data_roots, field, dataset, &mut check).await;
        // The stored files of a version are outside the roots.
        let init = given.init.as_ref().filter(|init| init.version.is_empty());
        let init = init.map(|init| &init.path);
        let init = resolve(&self.weights_roots, "spec.init.path", init, &mut check).await;
        let with_paths = |mut spec: Spec| {
            spec.max_restarts.get_or_insert(self.max_restarts);
            if let Some(dataset) = &dataset {
                spec.dataset.path.clone_from(dataset);
            }
            if let (Init::Path { path, .. }, Some(init)) = (&mut spec.init, &init) {
                path.clone_from(init);
            }
            spec
        };
        let mut violations = check.finish(()).err().unwrap_or_default();
        let mut spec = match Spec::resolve(request.spec.as_ref().map(|_| &given)) {
            Ok(spec) => Some(with_paths(spec)),
            Err(mut found) => {
                // Without a valid name the path is unknown, not missing.
                found.retain(|violation| is_located || violation.field != "spec.dataset.path");
                violations.extend(found);
                None
            }
        };
        let mut init_source = String::new();
        if let Some(spec) = &mut spec
            && violations.is_empty()
            && let Init::Path { path, key, version } = spec.init.clone()
        {
            let file = self.check_weights(path, key).await?;
            init_source = init::source_of(&version, &file.source);
            if let Some(description) = file.description {
                // Continues from the age model unless the request says otherwise.
                if given.head_bias() == v1::HeadBias::Unspecified {
                    given.set_head_bias(v1::HeadBias::Keep);
                }
                given.input_size.get_or_insert(description.input.size);
                match Spec::resolve(Some(&given)) {
                    Ok(resolved) => *spec = with_paths(resolved),
                    Err(found) => violations.extend(found),
                }
            }
        }
        if let (Some(spec), Some(total)) = (&spec, self.memory) {
            violations.extend(check_memory(spec, total));
        }
        match spec {
            Some(spec) if violations.is_empty() => {
                if spec.init == Init::ImageNet {
                    self.check_imagenet().await?;
                }
                Ok(Checked { spec, init_source })
            }
            _ => Err(status::violations(&violations)),
        }
    }

    /// Checks that the ImageNet weights are on this machine or on the hub.
    async fn check_imagenet(&self) -> Result<(), Status> {
        let permit = self.hub_checks.acquire()?;
        let sources = self.supervisor.weight_sources();
        let check = move || {
            // Held until the hub has responded, even if the client disconnects.
            let _permit = permit;
            weights::check_available(&sources.directories, &sources.hub, HUB_TIMEOUT)
        };
        let checked = read_files(check).await?;
        checked.map_err(|error| status::weights_unavailable(&error))
    }

    /// Rejects a dataset that no scan could read, such as a manifest without the required columns.
    pub(super) async fn check_source(&self, spec: &Spec) -> Result<(), Status> {
        let (roots, path) = (self.data_roots.clone(), spec.dataset.path.clone());
        let options = spec.dataset.options(spec.seed, self.limits);
        let check = move || dataset::check_source(Path::new(&path), &roots, &options);
        let checked = read_files(check).await?;
        checked.map_err(|error| status::invalid_dataset(&error, "spec.dataset."))
    }

    /// Reads a file of initial weights.
    async fn check_weights(&self, path: String, key: String) -> Result<init::WeightsFile, Status> {
        let permit = self.weights_checks.clone().acquire_owned().await;
        let permit = permit.map_err(|_| status::shutting_down())?;
        let check = move || {
            // Held until the file is read, even if the client disconnects.
            let _permit = permit;
            init::check(&path, &key)
        };
        let checked = read_files(check).await?;
        checked.map_err(|error| status::invalid_weights(&error))
    }
}

/// Resolves a path unless it is empty; reports one that is not accepted.
async fn resolve(
    roots: &Roots,
    field: &str,
    path: Option<&String>,
    check: &mut Check,
) -> Option<String> {
    let path = path.filter(|path| !path.is_empty())?;
    match roots.resolve_async(path).await {
        Ok(path) => Some(path.to_string_lossy().into_owned()),
        Err(error) => {
            check.refuse(field, error.to_string());
            None
        }
    }
}

fn check_metadata(request: &v1::StartTrainingRequest, check: &mut Check) {
    if !request.request_id.is_empty() && uuid::Uuid::try_parse(&request.request_id).is_err() {
        let description = format!("must be a UUID, got {:?}", request.request_id);
        check.refuse("request_id", description);
    }
    if !request.training_id.is_empty() && !names::is_id(&request.training_id) {
        check.refuse("training_id", names::id_violation(&request.training_id));
    }
    if request.display_name.chars().count() > 256 {
        check.refuse("display_name", "must have at most 256 characters");
    }
    if let Some(violation) = labels_violation(&request.labels) {
        check.refuse("labels", violation);
    }
}

/// The rule that labels break, if any.
pub(super) fn labels_violation(labels: &BTreeMap<String, String>) -> Option<&'static str> {
    let is_invalid =
        |(key, value): (&String, &String)| key.is_empty() || key.len() > 63 || value.len() > 255;
    (labels.len() > 64 || labels.iter().any(is_invalid))
        .then_some("must be at most 64, with keys of 1 to 63 bytes and values of at most 255 bytes")
}

fn check_memory(spec: &Spec, total: u64) -> Option<Violation> {
    let needed = estimate::memory_bytes(spec, 0, 0);
    (needed > total).then(|| Violation {
        field: "spec.batch_size".to_owned(),
        description: format!(
            "the training needs about {} MB of memory with this batch size and spec.input_size {}, and the machine has {} MB; decrease either",
            needed >> 20,
            spec.input_size,
            total >> 20
        ),
    })
}

/// The id of the request in canonical form and a digest of the request; `None` without a valid id.
pub(super) fn request_id(request: &v1::StartTrainingRequest, owner: &str) -> Option<RequestId> {
    let id = uuid::Uuid::try_parse(&request.request_id).ok()?;
    let without_id = v1::StartTrainingRequest {
        request_id: String::new(),
        ..request.clone()
    };
    Some(RequestId {
        owner: owner.to_owned(),
        id: id.hyphenated().to_string(),
        fingerprint: format!("{:x}", Sha256::digest(without_id.encode_to_vec())),
    })
}

/// An id that people can distinguish and that sorts by time, such as `t20261124-093015-4f2a81c3`.
pub(super) fn new_id() -> String {
    let now = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
    let digits: String = now.chars().filter(char::is_ascii_digit).collect();
    let (date, time) = digits.split_at(8.min(digits.len()));
    let random = uuid::Uuid::new_v4().simple().to_string();
    format!("t{date}-{time}-{}", &random[..8])
}
