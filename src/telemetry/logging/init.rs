use std::{
    io::IsTerminal,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use tracing_subscriber::{
    EnvFilter, Layer, Registry, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

use super::{
    filter::{Error, parse},
    json,
};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    /// Text, with colours if stderr is a terminal and `NO_COLOR` is not set.
    #[default]
    Human,
    /// One JSON object per line, with the fields of the event at its top level.
    Json,
}

/// `None` if another library logs.
static CONTROL: OnceLock<Option<Control>> = OnceLock::new();

struct Control {
    handle: reload::Handle<EnvFilter, Registry>,
    filter: Mutex<String>,
}

impl Control {
    fn filter(&self) -> MutexGuard<'_, String> {
        self.filter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts logging for the whole process. Further calls only check their filter.
///
/// `filter` is a level (`"info"`) or a list with levels of targets (`"warn,visage=debug"`).
///
/// # Errors
/// An invalid filter, or [`Error::AlreadyInitialized`].
pub(crate) fn init(filter: &str, format: Format) -> Result<(), Error> {
    let directives = parse(filter)?;
    let started = CONTROL.get_or_init(|| {
        let control = |handle| Control {
            handle,
            filter: Mutex::new(filter.trim().to_owned()),
        };
        subscribe(directives, format).map(control)
    });
    started.as_ref().map(drop).ok_or(Error::AlreadyInitialized)
}

/// The current filter; `None` if this process does not log through [`init`].
pub(crate) fn filter() -> Option<String> {
    let control = CONTROL.get()?.as_ref()?;
    Some(control.filter().clone())
}

/// Changes the filter and returns the previous one.
///
/// # Errors
/// An invalid filter, or [`Error::NotInitialized`].
pub(crate) fn set_filter(filter: &str) -> Result<String, Error> {
    let control = CONTROL.get().and_then(Option::as_ref);
    let control = control.ok_or(Error::NotInitialized)?;
    let directives = parse(filter)?;
    let new = filter.trim();
    let mut current = control.filter();
    let reloaded = control.handle.reload(directives);
    reloaded.map_err(|_| Error::NotInitialized)?;
    Ok(std::mem::replace(&mut *current, new.to_owned()))
}

/// Installs the global subscriber, which works once per process.
fn subscribe(filter: EnvFilter, format: Format) -> Option<reload::Handle<EnvFilter, Registry>> {
    let (filter, handle) = reload::Layer::new(filter);
    let lines = tracing_subscriber::fmt::layer()
        // Lines that cannot be written (a full disk, a closed pipe) are lost; the default panics.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    let lines = match format {
        Format::Json => lines.event_format(json::Lines).boxed(),
        Format::Human if std::io::stderr().is_terminal() => lines.boxed(),
        Format::Human => lines.with_ansi(false).boxed(),
    };
    let subscriber = tracing_subscriber::registry().with(filter).with(lines);
    subscriber.try_init().is_ok().then_some(handle)
}
