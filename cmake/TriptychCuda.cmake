# Finds CUDA: TRIPTYCH_NVCC and TRIPTYCH_CUDA_ROOT, and the target triptych_cudart (its headers and
# the static runtime). Where something is missing or TRIPTYCH_CUDA is OFF the target does not exist
# and everything is built without CUDA. Nothing here installs it.
if(NOT TRIPTYCH_CUDA)
  return()
endif()
find_program(TRIPTYCH_NVCC nvcc HINTS /usr/local/cuda/bin ENV CUDA_HOME PATH_SUFFIXES bin)
if(NOT TRIPTYCH_NVCC)
  message(STATUS "no nvcc, so without CUDA")
  return()
endif()
get_filename_component(TRIPTYCH_CUDA_ROOT ${TRIPTYCH_NVCC} REALPATH)
get_filename_component(TRIPTYCH_CUDA_ROOT ${TRIPTYCH_CUDA_ROOT}/../.. ABSOLUTE)
find_library(TRIPTYCH_CUDART cudart_static
             HINTS ${TRIPTYCH_CUDA_ROOT}/lib64 ${TRIPTYCH_CUDA_ROOT}/targets/x86_64-linux/lib)
if(NOT TRIPTYCH_CUDART)
  message(STATUS "nvcc without a static runtime, so without CUDA")
  return()
endif()
add_library(triptych_cudart INTERFACE)
target_include_directories(triptych_cudart SYSTEM INTERFACE ${TRIPTYCH_CUDA_ROOT}/include)
target_link_libraries(triptych_cudart INTERFACE ${TRIPTYCH_CUDART} Threads::Threads rt dl)
