//! Binding of libtorch's process group on gloo.

#![expect(unsafe_code, reason = "calls the C functions of c10d.cpp")]

use std::{
    ffi::{CStr, CString, c_char, c_int},
    net::{Ipv4Addr, TcpListener, ToSocketAddrs},
    os::fd::IntoRawFd,
    ptr::NonNull,
    time::Duration,
};

/// A connected process group. All ranks call the same functions in the same order.
#[derive(Debug)]
pub(super) struct Group {
    handle: NonNull<Handle>,
    count: usize,
}

/// Place of a rank in its group.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) rank: usize,
    pub(super) count: usize,
    /// Machine of rank 0.
    pub(super) host: &'a str,
    /// Port of rank 0.
    pub(super) port: u16,
    /// Listener on that port, of rank 0 only.
    pub(super) listener: Option<TcpListener>,
    /// A launcher listens on that port.
    pub(super) is_hosted: bool,
    /// Name of this start of the training: ranks of an earlier start cannot join.
    pub(super) name: &'a str,
    /// Longest wait for the other ranks.
    pub(super) timeout: Duration,
}

/// `Group` in C++.
#[repr(C)]
struct Handle {
    _private: [u8; 0],
}

/// Buffer for the text of an exception.
#[repr(C)]
struct ErrorText {
    text: *mut c_char,
    size: usize,
}

unsafe extern "C" {
    fn visage_ranks_connect(
        host: *const c_char,
        device: *const c_char,
        port: u16,
        listener: c_int,
        is_hosted: bool,
        rank: c_int,
        world: c_int,
        prefix: *const c_char,
        timeout_ms: i64,
        error: ErrorText,
    ) -> *mut Handle;
    fn visage_ranks_all_to_all(
        group: *mut Handle,
        input: *mut f32,
        output: *mut f32,
        count: usize,
        error: ErrorText,
    ) -> bool;
    fn visage_ranks_all_gather(
        group: *mut Handle,
        input: *mut u8,
        output: *mut u8,
        size: usize,
        error: ErrorText,
    ) -> bool;
    fn visage_ranks_broadcast(
        group: *mut Handle,
        data: *mut u8,
        size: usize,
        error: ErrorText,
    ) -> bool;
    fn visage_ranks_free(group: *mut Handle);
}

impl Group {
    /// Waits for all ranks.
    ///
    /// # Errors
    /// The text of an exception, such as a timeout.
    pub(super) fn connect(place: Place<'_>) -> Result<Self, String> {
        let Place {
            rank,
            count,
            host,
            port,
            listener,
            is_hosted,
            name,
            timeout,
        } = place;
        let device = if is_loopback(host, port)? {
            Ipv4Addr::LOCALHOST.to_string()
        } else {
            String::new()
        };
        let text = |text: &str| CString::new(text).map_err(|error| error.to_string());
        let (host, device, name) = (text(host)?, text(&device)?, text(name)?);
        // The store owns the socket from here on.
        let listener = listener.map_or(-1, IntoRawFd::into_raw_fd);
        let to_int = |number: usize| c_int::try_from(number).unwrap_or(c_int::MAX);
        let mut handle = None;
        let mut connect = |error: ErrorText| {
            // SAFETY: all pointers are valid for the call, which keeps none of them.
            let connected = unsafe {
                visage_ranks_connect(
                    host.as_ptr(),
                    device.as_ptr(),
                    port,
                    listener,
                    is_hosted,
                    to_int(rank),
                    to_int(count),
                    name.as_ptr(),
                    i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX),
                    error,
                )
            };
            handle = NonNull::new(connected);
            handle.is_some()
        };
        call(&mut connect)?;
        let handle = handle.ok_or_else(|| "the process group is missing".to_owned())?;
        Ok(Group { handle, count })
    }

    /// Sends equal parts of `input` to the ranks, and receives one from each, in their order.
    ///
    /// # Errors
    /// The text of an exception, such as a closed connection or a timeout.
    ///
    /// # Panics
    /// If the lengths differ or are not a multiple of the number of ranks.
    pub(super) fn all_to_all(&self, input: &mut [f32], output: &mut [f32]) -> Result<(), String> {
        assert_eq!(input.len(), output.len());
        assert!(input.len().is_multiple_of(self.count));
        let part = input.len() / self.count;
        let (group, from, to) = (
            self.handle.as_ptr(),
            input.as_mut_ptr(),
            output.as_mut_ptr(),
        );
        // SAFETY: both slices hold a part for each rank.
        call(&mut |error| unsafe { visage_ranks_all_to_all(group, from, to, part, error) })
    }

    /// Receives the bytes of each rank, in their order.
    ///
    /// # Errors
    /// As [`Group::all_to_all`].
    ///
    /// # Panics
    /// If `output` has not the length of all inputs.
    pub(super) fn all_gather(&self, input: &mut [u8], output: &mut [u8]) -> Result<(), String> {
        assert_eq!(output.len(), input.len() * self.count);
        let (group, from, to) = (
            self.handle.as_ptr(),
            input.as_mut_ptr(),
            output.as_mut_ptr(),
        );
        let size = input.len();
        // SAFETY: `output` has room for the bytes of all ranks.
        call(&mut |error| unsafe { visage_ranks_all_gather(group, from, to, size, error) })
    }

    /// Replaces the bytes by those of rank 0.
    ///
    /// # Errors
    /// As [`Group::all_to_all`].
    pub(super) fn broadcast(&self, data: &mut [u8]) -> Result<(), String> {
        let (group, bytes, size) = (self.handle.as_ptr(), data.as_mut_ptr(), data.len());
        // SAFETY: the slice is exclusively borrowed for the call.
        call(&mut |error| unsafe { visage_ranks_broadcast(group, bytes, size, error) })
    }
}

// SAFETY: the process group has no thread of its own caller; a rank uses it from one thread at a
// time, because it is not `Sync`.
unsafe impl Send for Group {}

/// Returns whether rank 0 is reached over the loopback interface, so that all ranks are.
fn is_loopback(host: &str, port: u16) -> Result<bool, String> {
    let addresses = (host, port).to_socket_addrs();
    let mut addresses = addresses.map_err(|error| format!("{host}: {error}"))?;
    Ok(addresses.all(|address| address.ip().is_loopback()))
}

impl Drop for Group {
    fn drop(&mut self) {
        // SAFETY: `visage_ranks_connect` created it, and it is freed once.
        unsafe { visage_ranks_free(self.handle.as_ptr()) };
    }
}

/// Calls a function that returns its success and writes the text of an exception.
fn call(function: &mut dyn FnMut(ErrorText) -> bool) -> Result<(), String> {
    let mut text = [0_u8; 1024];
    let error = ErrorText {
        text: text.as_mut_ptr().cast(),
        size: text.len(),
    };
    if function(error) {
        return Ok(());
    }
    let text = CStr::from_bytes_until_nul(&text).map(CStr::to_string_lossy);
    Err(text.map_or_else(|_| "unknown error".to_owned(), |text| text.into_owned()))
}
