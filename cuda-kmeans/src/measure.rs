//! How fast the card is at what k-means consists of.

#![allow(unsafe_code, reason = "a kernel is launched")]

use crate::{CudaClusterer, error::DeviceError, layout::Shape};
use a2ats_kernel::clustering::Points;
use cust::{
    event::{Event, EventFlags},
    launch,
    memory::{DeviceBuffer, DevicePointer},
    module::Module,
    stream::{Stream, StreamFlags},
};

/// Times each is taken; the shortest counts.
const TIMES: usize = 5;

/// Floating-point operations of one product of the tensor cores.
const OF_PRODUCT: f64 = 2.0 * 16.0 * 8.0 * 8.0;

/// Independent products of a round, as in `kernels/peak.cu`.
const PRODUCTS: f64 = 8.0;

impl CudaClusterer {
    /// TF32 operations per second of the tensor cores, multiplications and additions, from registers; `rounds` is how long it takes.
    ///
    /// # Errors
    /// If the card or its driver fails.
    pub fn matrix_peak(&self, rounds: u32) -> Result<f64, DeviceError> {
        const THREADS: u32 = 256;
        self.card().make_current()?;
        let failed = |error| DeviceError::driver("measuring the tensor cores", error);
        let module = Module::from_ptx(include_str!("../ptx/peak.ptx"), &[]).map_err(failed)?;
        let multiply = module.get_function("multiply").map_err(failed)?;
        let stream = Stream::new(StreamFlags::DEFAULT, None).map_err(failed)?;
        let blocks = self.card().multiprocessors * 8;
        // SAFETY: the kernel writes all of it, and nothing reads it.
        let out =
            unsafe { DeviceBuffer::<f32>::uninitialized((blocks * THREADS) as usize) }.map_err(failed)?;
        let out: DevicePointer<f32> = out.as_device_ptr();
        let seconds = shortest(&stream, || {
            // SAFETY: one number per thread.
            unsafe { launch!(multiply<<<blocks, THREADS, 0, stream>>>(rounds, out)) }.map_err(failed)
        })?;
        Ok(f64::from(blocks * THREADS / 32) * f64::from(rounds) * PRODUCTS * OF_PRODUCT / seconds)
    }

    /// Floating-point operations per second, of products of f32, of finding the nearest of about `clusters` centroids for all points.
    ///
    /// # Errors
    /// If the points do not fit, or the card or its driver fails.
    pub fn assignment_speed(&self, points: &Points<'_>, clusters: usize) -> Result<f64, DeviceError> {
        let shape = Shape { count: points.count(), dim: points.dim(), clusters, weighted: false };
        let batch = self.check(&shape)?.batch.min(shape.count);
        let (seconds, moved) = self.with_job(&shape, points, |job| job.time_assignment())?;
        Ok(2.0 * (batch * moved * shape.dim) as f64 / seconds)
    }
}

/// The shortest of several times that what `run` launches takes.
pub(crate) fn shortest(
    stream: &Stream,
    mut run: impl FnMut() -> Result<(), DeviceError>,
) -> Result<f64, DeviceError> {
    let failed = |error| DeviceError::driver("taking the time", error);
    let mut least = f64::INFINITY;
    for _ in 0..TIMES {
        let [start, end] = [
            Event::new(EventFlags::DEFAULT).map_err(failed)?,
            Event::new(EventFlags::DEFAULT).map_err(failed)?,
        ];
        start.record(stream).map_err(failed)?;
        run()?;
        end.record(stream).map_err(failed)?;
        end.synchronize().map_err(failed)?;
        least = least.min(f64::from(end.elapsed_time_f32(&start).map_err(failed)?) / 1000.0);
    }
    Ok(least)
}
