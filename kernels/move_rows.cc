#include "kernels/move_rows.h"

#include "base/status.h"
#include "kernels/op_status.h"

namespace triptych::kernels {
namespace {

absl::Status Move(const MoveRowsArgs& given, internal::MoveRowsDirection direction,
                  const Stream& stream) {
  MoveRowsArgs args = given;
  if (args.x_stride == 0) args.x_stride = args.width;
  if (args.out_stride == 0) args.out_stride = args.width;
  if (args.rows < 0 || args.indexed_rows < 0 || args.width < 1 || args.x_stride < args.width ||
      args.out_stride < args.width) {
    return absl::InvalidArgumentError(
        absl::StrCat("move rows: rows ", args.rows, " of ", args.indexed_rows, ", width ",
                     args.width, ", strides ", args.x_stride, " and ", args.out_stride));
  }
  if (args.rows == 0) return absl::OkStatus();
  if (args.x == nullptr || args.out == nullptr || args.indices == nullptr) {
    return absl::InvalidArgumentError("move rows: null pointer");
  }
  if (stream.device == Device::kCpu) {
    internal::MoveRowsCpu(args, direction, stream.pool);
    return absl::OkStatus();
  }
#ifdef TRIPTYCH_CUDA_SIDE
  return CudaStatus("move rows", internal::MoveRowsCuda(args, direction, stream));
#else
  return NoCudaSide("move rows");
#endif
}

}  // namespace

absl::Status GatherRows(const MoveRowsArgs& args, const Stream& stream) {
  return Move(args, internal::MoveRowsDirection::kGather, stream);
}

absl::Status ScatterRows(const MoveRowsArgs& args, const Stream& stream) {
  return Move(args, internal::MoveRowsDirection::kScatter, stream);
}

}  // namespace triptych::kernels
