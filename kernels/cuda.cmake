# The CUDA sides (x.cu) of the ops, compiled by nvcc where it is found and TRIPTYCH_CUDA is ON.
# Without it the ops answer Unimplemented for Device::kCuda. Plain rules instead of CMake's CUDA
# language: that would have to be enabled by every folder that links this library.
if(NOT TRIPTYCH_CUDA)
  return()
endif()
find_program(TRIPTYCH_NVCC nvcc HINTS /usr/local/cuda/bin ENV CUDA_HOME PATH_SUFFIXES bin)
if(NOT TRIPTYCH_NVCC)
  message(STATUS "kernels: no nvcc, so without CUDA")
  return()
endif()
get_filename_component(TRIPTYCH_CUDA_ROOT ${TRIPTYCH_NVCC} REALPATH)
get_filename_component(TRIPTYCH_CUDA_ROOT ${TRIPTYCH_CUDA_ROOT}/../.. ABSOLUTE)
find_library(TRIPTYCH_CUDART cudart_static
             HINTS ${TRIPTYCH_CUDA_ROOT}/lib64 ${TRIPTYCH_CUDA_ROOT}/targets/x86_64-linux/lib)
if(NOT TRIPTYCH_CUDART)
  message(STATUS "kernels: nvcc without a static runtime, so without CUDA")
  return()
endif()

# For whoever calls the runtime itself (tests, benchmarks): its headers and the static library.
add_library(triptych_cudart INTERFACE)
target_include_directories(triptych_cudart SYSTEM INTERFACE ${TRIPTYCH_CUDA_ROOT}/include)
target_link_libraries(triptych_cudart INTERFACE ${TRIPTYCH_CUDART} Threads::Threads rt dl)

set(TRIPTYCH_NVCC_FLAGS -std=c++20 -O3 -lineinfo -gencode=arch=compute_90a,code=sm_90a
    -Xptxas=-warn-spills -Werror=all-warnings -Xcompiler=-Wall,-Wextra,-fPIC -I${CMAKE_SOURCE_DIR})
file(GLOB KERNEL_CUDA_SOURCES CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/*.cu)
foreach(source IN LISTS KERNEL_CUDA_SOURCES)
  get_filename_component(name ${source} NAME)
  set(object ${CMAKE_CURRENT_BINARY_DIR}/${name}.o)
  add_custom_command(OUTPUT ${object}
    COMMAND ${TRIPTYCH_NVCC} ${TRIPTYCH_NVCC_FLAGS} -MD -MF ${object}.d -MT ${object}
            -c ${source} -o ${object}
    DEPENDS ${source} DEPFILE ${object}.d COMMENT "nvcc ${name}" VERBATIM)
  target_sources(triptych_kernels PRIVATE ${object})
  set_source_files_properties(${object} PROPERTIES EXTERNAL_OBJECT TRUE GENERATED TRUE)
endforeach()
target_compile_definitions(triptych_kernels PRIVATE TRIPTYCH_HAS_CUDA)
target_link_libraries(triptych_kernels PUBLIC triptych_cudart)
