# The CUDA sides (x.cu) of the ops, compiled by nvcc where cmake/TriptychCuda.cmake finds it.
# Without it the ops answer Unimplemented for Device::kCuda. Plain rules instead of CMake's CUDA
# language: that would have to be enabled by every folder that links this library.
if(NOT TARGET triptych_cudart)
  return()
endif()

# One heavy unit at a time: those of the libraries take 3 GiB each.
set_property(GLOBAL APPEND PROPERTY JOB_POOLS heavy_cuda=1)

set(TRIPTYCH_NVCC_FLAGS -std=c++20 -O3 -lineinfo -gencode=arch=compute_90a,code=sm_90a
    -Xptxas=-warn-spills -Werror=all-warnings -Xcompiler=-Wall,-Wextra,-fPIC -I${CMAKE_SOURCE_DIR})

# FlashInfer's headers and what they need, fetched by cmake/fetch_cuda_sources.sh. They are
# instantiated in our files, so a file that includes them has flags of its own: theirs, no warnings.
set(CUDA_SOURCES ${CMAKE_SOURCE_DIR}/build-tools/cuda-sources)
set(FLASHINFER_FLAGS -std=c++20 -O3 -lineinfo -gencode=arch=compute_90a,code=sm_90a -DNDEBUG
    --disable-warnings -Xcompiler=-w,-fPIC --expt-relaxed-constexpr --expt-extended-lambda
    -static-global-template-stub=false -I${CMAKE_SOURCE_DIR})
foreach(folder cccl/libcudacxx/include cccl/cub cccl/thrust include cutlass/include
        cutlass/tools/util/include)
  list(APPEND FLASHINFER_FLAGS -isystem ${CUDA_SOURCES}/flashinfer/${folder})
endforeach()
# The files that include it, and those that call them. Others are ours alone.
set(WITH_FLASHINFER frame_attention.cu prefill_attention_64.cu prefill_attention_128.cu)
set(CALLS_FLASHINFER attention.cu segment_attention.cu)

file(GLOB KERNEL_CUDA_SOURCES CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/*.cu)
foreach(source IN LISTS KERNEL_CUDA_SOURCES)
  get_filename_component(name ${source} NAME)
  set(flags ${TRIPTYCH_NVCC_FLAGS})
  set(pool)
  if(name IN_LIST CALLS_FLASHINFER AND EXISTS ${CUDA_SOURCES}/complete)
    list(APPEND flags -DTRIPTYCH_FLASHINFER)
  endif()
  if(name IN_LIST WITH_FLASHINFER)
    if(NOT EXISTS ${CUDA_SOURCES}/complete)
      message(STATUS "kernels: no ${CUDA_SOURCES}, so without ${name}")
      continue()
    endif()
    set(flags ${FLASHINFER_FLAGS})
    set(pool JOB_POOL heavy_cuda)
  endif()
  set(object ${CMAKE_CURRENT_BINARY_DIR}/${name}.o)
  add_custom_command(OUTPUT ${object}
    COMMAND ${CCACHE} ${TRIPTYCH_NVCC} ${flags} -MD -MF ${object}.d -MT ${object}
            -c ${source} -o ${object}
    DEPENDS ${source} DEPFILE ${object}.d COMMENT "nvcc ${name}" ${pool} VERBATIM)
  target_sources(triptych_kernels PRIVATE ${object})
  set_source_files_properties(${object} PROPERTIES EXTERNAL_OBJECT TRUE GENERATED TRUE)
  # The dispatch of an op calls its CUDA side where there is one.
  string(REGEX REPLACE "\\.cu$" ".cc" dispatch ${source})
  if(EXISTS ${dispatch})
    set_source_files_properties(${dispatch} PROPERTIES COMPILE_DEFINITIONS TRIPTYCH_CUDA_SIDE)
  endif()
endforeach()
target_link_libraries(triptych_kernels PUBLIC triptych_cudart)
