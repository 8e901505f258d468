// structops._native: the torch-free side of the library for Python. NumPy entry points, instruction sets, build facts.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <string>

#include "core/isa.h"
#include "sparse/cuda.h"

namespace py = pybind11;
using namespace structops;

namespace {

using Floats = py::array_t<float, py::array::c_style | py::array::forcecast>;
using Longs = py::array_t<int64_t, py::array::c_style | py::array::forcecast>;

int64_t checked(const py::array& a, const char* name, py::ssize_t ndim) {
  if (a.ndim() != ndim) throw py::value_error(std::string(name) + " must have " + std::to_string(ndim) + " dimensions");
  return a.shape(0);
}

// out[v] = reduce over k in row v of (weight[k] *) x[col[k]]
Floats spmm(const Longs& rowptr, const Longs& col, const Floats& x, const std::optional<Floats>& weight, const std::string& reduce) {
  SpmmArgs a{};
  a.N = checked(rowptr, "rowptr", 1) - 1;
  a.E = checked(col, "col", 1);
  const int64_t rows = checked(x, "x", 2);
  if (a.N < 0 || rowptr.at(0) != 0 || rowptr.at(a.N) != a.E) throw py::value_error("rowptr must run from 0 to len(col)");
  for (int64_t v = 0; v < a.N; ++v)
    if (rowptr.at(v) > rowptr.at(v + 1)) throw py::value_error("rowptr must be non-decreasing");
  for (int64_t k = 0; k < a.E; ++k)
    if (col.at(k) < 0 || col.at(k) >= rows) throw py::index_error("col is out of range");
  if (weight && checked(*weight, "weight", 1) != a.E) throw py::value_error("weight must be as long as col");
  const char* names[] = {"sum", "mean", "min", "max", "prod", "var", "std", "logsumexp"};
  int code = -1;
  for (int i = 0; i < 8; ++i) if (reduce == names[i]) code = i;
  if (code < 0) throw py::value_error("unknown reduce '" + reduce + "'");
  a.dtype = Dtype::f32;
  a.message = weight ? Message::mul : Message::copy_u;
  a.reduce = Reduce(code);
  a.arg_kind = ArgKind::none;
  a.unbiased = true;
  a.B = 1;
  a.F = a.Fx = x.shape(1);
  a.x = x.data();
  a.Fe = 1;
  a.e = weight ? weight->data() : nullptr;
  a.rowptr = {rowptr.data(), true};
  a.col = {col.data(), true};
  Floats out({a.N, a.F});
  a.out = out.mutable_data();
  {
    py::gil_scoped_release release;
    spmm_fwd(a, serial_for);
  }
  return out;
}

}  // namespace

PYBIND11_MODULE(_native, m) {
  m.doc() = "Torch-free entry points of structops.";
  m.def("isa", [] { return isa_name(active_isa()); }, "The CPU instruction set in use.");
  m.def("detected_isa", [] { return isa_name(detected_isa()); }, "The best instruction set of this CPU.");
  m.def("set_isa", [](const std::string& name) {
    if (!set_isa(name.c_str()))
      throw py::value_error("instruction set '" + name + "' is unknown or not available on this CPU; use baseline, avx2, avx512 or auto");
  }, py::arg("name"), "Chooses the instruction set: baseline, avx2, avx512 or auto.");
  m.def("cuda_compiled", [] { return cuda::compiled(); }, "Whether the CUDA kernels were compiled in.");
  m.def("compiler", [] { return std::string(__VERSION__); }, "The C++ compiler's version.");
  m.def("spmm", &spmm, py::arg("rowptr"), py::arg("col"), py::arg("x"), py::arg("weight") = py::none(), py::arg("reduce") = "sum",
        "float32 SpMM on NumPy arrays: rowptr [N + 1], col [E] int64, x [M, F], weight [E] or None -> [N, F]. One thread.");
}
