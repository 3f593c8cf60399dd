//! Decodes or checks one file, within the limits.

use std::ffi::{c_int, c_long, c_ulong, c_void};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr::{addr_of, addr_of_mut};

use image::{DynamicImage, GrayImage, RgbImage};
use mozjpeg_sys as ffi;

use super::super::{Error, Limits};
use super::markers;
use super::messages::{Failure, Scans, catch, emit_message, error_exit, too_many_scans};

/// Most scans of a JPEG of the largest accepted size; encoders write a dozen. A smaller image may
/// have proportionally more. Each scan of a progressive JPEG visits every pixel, and hundreds fit
/// into a file of 100 kB.
const SCANS: u64 = 16;

const EXIF_MARKER: c_int = 0xE1;
/// Most components of a decoded JPEG: CMYK.
const MAX_COMPONENTS: usize = 4;
const EXIF_PREFIX: &[u8] = b"Exif\0\0";

/// A JPEG whose header has been read and whose dimensions are within the limits.
pub(in crate::imaging) struct Decoder<'a> {
    /// From `Box::into_raw`: the library and its callbacks hold pointers into it.
    state: *mut State,
    bytes: PhantomData<&'a [u8]>,
}

struct State {
    library: ffi::jpeg_decompress_struct,
    errors: ffi::jpeg_error_mgr,
    scans: Scans,
}

impl<'a> Decoder<'a> {
    /// Reads the header, up to the image data of the first scan.
    #[expect(unsafe_code, reason = "libjpeg is a C library")]
    pub(in crate::imaging) fn open(bytes: &'a [u8], limits: &Limits) -> Result<Self, Error> {
        // SAFETY: all three are C structures without a niche; the library fills them below before
        // it reads them.
        let state: Box<State> = Box::new(State {
            library: unsafe { std::mem::zeroed() },
            errors: unsafe { std::mem::zeroed() },
            scans: Scans::default(),
        });
        let decoder = Decoder {
            state: Box::into_raw(state),
            bytes: PhantomData,
        };
        let state = decoder.state;
        // SAFETY: `state` points to a live State that only this thread uses; `bytes` outlives the
        // decoder.
        catch(|| unsafe {
            ffi::jpeg_std_error(&mut (*state).errors);
            (*state).errors.error_exit = Some(error_exit);
            (*state).errors.emit_message = Some(emit_message);
            (*state).library.common.err = addr_of_mut!((*state).errors);
            (*state).library.common.client_data = addr_of_mut!((*state).scans).cast::<c_void>();
            ffi::jpeg_create_decompress(addr_of_mut!((*state).library));
            // The library's own arrays; rows and tables are small beside them.
            (*(*state).library.common.mem).max_memory_to_use =
                c_long::try_from(limits.decoder_memory()).unwrap_or(c_long::MAX);
            ffi::jpeg_save_markers(&mut (*state).library, EXIF_MARKER, 0xFFFF);
            ffi::jpeg_mem_src(
                &mut (*state).library,
                bytes.as_ptr(),
                bytes.len() as c_ulong,
            );
            ffi::jpeg_read_header(&mut (*state).library, 1);
        })?;
        let (width, height) = decoder.dimensions();
        limits.check_dimensions(width, height)?;
        let components = decoder.library().num_components;
        if !matches!(components, 1 | 3 | 4) {
            let found =
                format!("a JPEG image with {components} components, which is not supported");
            return Err(Error::UnsupportedFormat { found });
        }
        let pixels = u64::from(width) * u64::from(height);
        let allowed = (SCANS * limits.max_pixels / pixels).max(1);
        if markers::scans(bytes) > allowed {
            Err(too_many_scans(allowed))?;
        }
        // SAFETY: as above; the library runs only inside calls.
        unsafe {
            (*state).scans.allowed = Some(allowed);
        }
        Ok(decoder)
    }

    /// Stored width and height in pixels.
    pub(in crate::imaging) fn dimensions(&self) -> (u32, u32) {
        (self.library().image_width, self.library().image_height)
    }

    /// The first EXIF segment, from its TIFF header on.
    #[expect(unsafe_code, reason = "libjpeg is a C library")]
    pub(in crate::imaging) fn exif(&self) -> Option<&[u8]> {
        let mut next = self.library().marker_list;
        while !next.is_null() {
            // SAFETY: the list is created by jpeg_read_header and lives as long as the decoder.
            let marker = unsafe { &*next };
            if !marker.data.is_null() {
                // SAFETY: as above; the library stores `data_length` bytes there.
                let data =
                    unsafe { std::slice::from_raw_parts(marker.data, marker.data_length as usize) };
                if let Some(exif) = data.strip_prefix(EXIF_PREFIX) {
                    return Some(exif);
                }
            }
            next = marker.next;
        }
        None
    }

    /// Decodes to 8-bit grey or RGB, before the orientation is applied.
    pub(in crate::imaging) fn decode(mut self) -> Result<DynamicImage, Error> {
        let (width, height) = self.dimensions();
        let count = self.library().num_components;
        let colours = match count {
            1 => ffi::J_COLOR_SPACE::JCS_GRAYSCALE,
            3 => ffi::J_COLOR_SPACE::JCS_RGB,
            _ => ffi::J_COLOR_SPACE::JCS_CMYK,
        };
        let row_bytes = width as usize * count as usize;
        let samples = self.samples(colours, row_bytes, height as usize)?;
        let image = match count {
            1 => GrayImage::from_raw(width, height, samples).map(DynamicImage::from),
            3 => RgbImage::from_raw(width, height, samples).map(DynamicImage::from),
            _ => {
                let inks = samples.as_chunks::<4>().0.iter();
                let samples = inks.flat_map(|inks| rgb_of_inverted_cmyk(*inks)).collect();
                RgbImage::from_raw(width, height, samples).map(DynamicImage::from)
            }
        };
        Ok(image.expect("the library wrote as many samples as the header announces"))
    }

    /// Reads all image data without keeping pixels, so that damage anywhere in the file is found.
    #[expect(unsafe_code, reason = "libjpeg is a C library")]
    pub(in crate::imaging) fn verify(mut self) -> Result<(), Error> {
        let state = self.state;
        // SAFETY: `state` is live and used by this thread only. At an eighth of the size and in the
        // colours that are stored, all entropy-coded data is read and almost nothing is computed
        // from it.
        let colours = unsafe {
            (*state).library.scale_num = 1;
            (*state).library.scale_denom = 8;
            (*state).library.jpeg_color_space
        };
        let row = self.library().image_width.div_ceil(8) as usize * MAX_COMPONENTS;
        self.read(colours, &mut vec![MaybeUninit::uninit(); row], 0)?;
        Ok(())
    }

    /// Reads the samples of an image of `height` rows.
    #[expect(unsafe_code, reason = "libjpeg is a C library")]
    fn samples(
        &mut self,
        colours: ffi::J_COLOR_SPACE,
        row_bytes: usize,
        height: usize,
    ) -> Result<Vec<u8>, Failure> {
        let bytes = row_bytes * height;
        // Not initialised with zeros, which would take 5 % of the time.
        let mut samples = Vec::with_capacity(bytes);
        let rows = self.read(
            colours,
            &mut samples.spare_capacity_mut()[..bytes],
            row_bytes,
        )?;
        assert_eq!(
            rows,
            (row_bytes, height),
            "the library decodes at full size"
        );
        // SAFETY: the capacity is there, and the library wrote each byte of each row.
        unsafe { samples.set_len(bytes) };
        Ok(samples)
    }

    /// Decompresses the image into `output`, each row `stride` bytes after the previous one;
    /// returns the bytes of a row and the rows.
    #[expect(unsafe_code, reason = "libjpeg is a C library")]
    fn read(
        &mut self,
        colours: ffi::J_COLOR_SPACE,
        output: &mut [MaybeUninit<u8>],
        stride: usize,
    ) -> Result<(usize, usize), Failure> {
        let state = self.state;
        // SAFETY: `state` is live and used by this thread only; a row is written only where all of
        // it lies in `output`.
        let rows = catch(|| unsafe {
            let library = addr_of_mut!((*state).library);
            (*library).out_color_space = colours;
            ffi::jpeg_start_decompress(&mut *library);
            let row_bytes =
                (*library).output_width as usize * (*library).output_components as usize;
            while (*library).output_scanline < (*library).output_height {
                let start = stride * (*library).output_scanline as usize;
                let mut row = output[start..start + row_bytes].as_mut_ptr().cast::<u8>();
                ffi::jpeg_read_scanlines(&mut *library, &mut row, 1);
            }
            ffi::jpeg_finish_decompress(&mut *library);
            (row_bytes, (*library).output_height as usize)
        })?;
        // SAFETY: `state` is live, and the library does not run.
        match unsafe { (*state).scans.missing_component() } {
            // The library shows such a component as grey, without a warning.
            Some(component) => Err(Failure::Corrupt(format!(
                "the file ends before the image does: it has no data for component {component}"
            ))),
            None => Ok(rows),
        }
    }

    #[expect(unsafe_code, reason = "libjpeg is a C library")]
    fn library(&self) -> &ffi::jpeg_decompress_struct {
        // SAFETY: `state` is live until the decoder is dropped, and the library does not run.
        unsafe { &*addr_of!((*self.state).library) }
    }
}

impl Drop for Decoder<'_> {
    #[expect(unsafe_code, reason = "libjpeg is a C library")]
    fn drop(&mut self) {
        // SAFETY: created by Box::into_raw in `open` and freed here only. The library accepts a
        // structure that it never finished creating, since its memory manager is then null.
        unsafe {
            ffi::jpeg_destroy_decompress(&mut (*self.state).library);
            drop(Box::from_raw(self.state));
        }
    }
}

/// Converts four inverted inks to RGB, as Adobe's programs store them and Pillow assumes for every
/// CMYK JPEG: each of red, green and blue is (255 - ink) · (255 - black) / 255, rounded.
fn rgb_of_inverted_cmyk([cyan, magenta, yellow, black]: [u8; 4]) -> [u8; 3] {
    let light = u32::from(black);
    [cyan, magenta, yellow].map(|inverted| {
        let ink = 255 - u32::from(inverted);
        // Pillow rounds the part that is absorbed.
        let absorbed = (ink * light + 127) / 255;
        (light - absorbed) as u8
    })
}
