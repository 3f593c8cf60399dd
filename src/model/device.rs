//! Selects CPU or GPU at run time.
//!
//! The binary links only libtorch's CPU libraries. Where `libtorch_cuda.so` is installed beside
//! them, loading it registers the CUDA backend, so that one binary serves both kinds of machine.

use std::sync::OnceLock;

use tch::Device;

use super::Error;

/// Selects the device of this name: `auto`, `cpu` or `cuda:N`.
///
/// # Errors
/// An invalid name, or a GPU that is missing.
pub(crate) fn select(requested: &str) -> Result<Device, Error> {
    let unavailable = |reason: String| Error::Device {
        requested: requested.to_owned(),
        reason,
    };
    match requested {
        "cpu" => return Ok(Device::Cpu),
        "auto" | "" => {
            let found = load_cuda().is_ok() && tch::Cuda::is_available();
            return Ok(if found { Device::Cuda(0) } else { Device::Cpu });
        }
        _ => {}
    }
    let index = requested
        .strip_prefix("cuda:")
        .and_then(|n| n.parse::<usize>().ok());
    let Some(index) = index else {
        return Err(unavailable(
            "the name must be auto, cpu or cuda:N".to_owned(),
        ));
    };
    load_cuda().map_err(|cause| {
        unavailable(format!(
            "libtorch's CUDA libraries are missing ({cause}); `make build GPU=1` installs them"
        ))
    })?;
    let count = tch::Cuda::device_count();
    if i64::try_from(index).is_ok_and(|index| index < count) {
        return Ok(Device::Cuda(index));
    }
    Err(unavailable(format!("libtorch found {count} GPUs")))
}

/// `cpu` or `cuda:N`.
pub(crate) fn name(device: Device) -> String {
    match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        Device::Cpu => "cpu".to_owned(),
        Device::Mps => "mps".to_owned(),
        Device::Vulkan => "vulkan".to_owned(),
    }
}

/// Sets the number of libtorch's threads for calls from the current thread, whatever other threads
/// set later.
pub(crate) fn compute_with_threads(count: usize) {
    tch::set_num_threads(i32::try_from(count).unwrap_or(i32::MAX));
    // A thread adopts the number that was set last, by any thread, when it first uses libtorch;
    // reading the number counts as a first use.
    tch::get_num_threads();
}

/// The supported version of libtorch.
pub(crate) const LIBTORCH_VERSION: &str = "2.11.0";

/// Loads the CUDA backend once, before the first tensor; returns the reason if it cannot be loaded.
fn load_cuda() -> Result<(), String> {
    static LOADED: OnceLock<Result<(), String>> = OnceLock::new();
    LOADED.get_or_init(open_cuda_library).clone()
}

#[cfg(target_os = "linux")]
#[expect(
    unsafe_code,
    reason = "loading a library runs its initialisers; it is libtorch's own"
)]
fn open_cuda_library() -> Result<(), String> {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
    // SAFETY: libtorch_cuda.so is part of the libtorch that this program runs on; its initialisers
    // only register kernels.
    let library = unsafe { Library::open(Some("libtorch_cuda.so"), RTLD_NOW | RTLD_GLOBAL) };
    let library = library.map_err(|error| format!("libtorch_cuda.so: {error}"))?;
    // The kernels stay registered, so the library must never be unloaded.
    std::mem::forget(library);
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn open_cuda_library() -> Result<(), String> {
    Err("CUDA is supported on Linux only".to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tch::{Kind, Tensor};

    use super::*;

    #[test]
    fn the_number_of_threads_is_not_what_another_thread_sets_later() {
        let (ready, is_ready) = mpsc::channel();
        let (resume, resumed) = mpsc::channel();
        let first = std::thread::spawn(move || {
            compute_with_threads(3);
            ready.send(()).unwrap();
            resumed.recv().unwrap();
            // The first computation of this thread.
            drop(Tensor::ones([64, 64], (Kind::Float, Device::Cpu)) * 2.0);
            tch::get_num_threads()
        });
        is_ready.recv().unwrap();
        let second = std::thread::spawn(|| {
            compute_with_threads(1);
            tch::get_num_threads()
        });
        assert_eq!(second.join().unwrap(), 1);
        resume.send(()).unwrap();
        assert_eq!(first.join().unwrap(), 3);
    }
}
