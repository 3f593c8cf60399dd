//! CPU or GPU, found at run time.
//!
//! The binary links only libtorch's CPU libraries. Where `libtorch_cuda.so` lies beside them, loading it registers the CUDA backend with
//! libtorch, so that one binary serves both kinds of machine.

use std::sync::OnceLock;

use tch::Device;

use super::Error;

/// Finds the device that the user asked for: `auto`, `cpu` or `cuda:N`.
///
/// # Errors
/// A name of another form, or a GPU that is not there.
pub fn select(wanted: &str) -> Result<Device, Error> {
    let unavailable = |reason: String| Error::Device {
        wanted: wanted.to_owned(),
        reason,
    };
    match wanted {
        "cpu" => return Ok(Device::Cpu),
        "auto" | "" => {
            let found = load_cuda().is_ok() && tch::Cuda::is_available();
            return Ok(if found { Device::Cuda(0) } else { Device::Cpu });
        }
        _ => {}
    }
    let index = wanted
        .strip_prefix("cuda:")
        .and_then(|n| n.parse::<usize>().ok());
    let Some(index) = index else {
        return Err(unavailable("it must be auto, cpu or cuda:N".to_owned()));
    };
    load_cuda().map_err(unavailable)?;
    let count = tch::Cuda::device_count();
    if i64::try_from(index).is_ok_and(|index| index < count) {
        return Ok(Device::Cuda(index));
    }
    Err(unavailable(format!("libtorch finds {count} GPUs here")))
}

/// `cpu` or `cuda:N`.
pub fn name(device: Device) -> String {
    match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        Device::Cpu => "cpu".to_owned(),
        Device::Mps => "mps".to_owned(),
        Device::Vulkan => "vulkan".to_owned(),
    }
}

/// Lets libtorch compute with so many threads when this thread calls it, whatever other threads tell it for themselves later.
pub fn compute_with_threads(count: usize) {
    tch::set_num_threads(i32::try_from(count).unwrap_or(i32::MAX));
    // A thread takes the number that libtorch was last told when it computes for the first time, which may be another one's; asking is such a first time.
    tch::get_num_threads();
}

/// The libtorch that this program is written for.
pub const LIBTORCH_VERSION: &str = "2.11.0";

/// Loads the CUDA backend once; must come before the first tensor. Says why when it cannot be loaded.
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
    // SAFETY: libtorch_cuda.so is part of the libtorch that this program runs on; its initialisers only register kernels.
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
    fn number_of_threads_is_not_that_which_another_thread_tells_later() {
        let (told, is_told) = mpsc::channel();
        let (go_on, goes_on) = mpsc::channel();
        let first = std::thread::spawn(move || {
            compute_with_threads(3);
            told.send(()).unwrap();
            goes_on.recv().unwrap();
            // The first time that this thread computes anything.
            drop(Tensor::ones([64, 64], (Kind::Float, Device::Cpu)) * 2.0);
            tch::get_num_threads()
        });
        is_told.recv().unwrap();
        let second = std::thread::spawn(|| {
            compute_with_threads(1);
            tch::get_num_threads()
        });
        assert_eq!(second.join().unwrap(), 1);
        go_on.send(()).unwrap();
        assert_eq!(first.join().unwrap(), 3);
    }
}
