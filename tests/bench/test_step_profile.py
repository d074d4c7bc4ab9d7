"""The profile of a step: the kind of each kernel, and how times become shares."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import DeviceType

from bench.step_profile import (
    KINDS,
    OPTIMIZER,
    UPDATE,
    classify,
    list_cpu_parts,
    list_gpu_parts,
    list_our_kernels,
    remove_overlap,
    summarise_parts,
)

OURS = list_our_kernels()

# Names that torch's profiler has given to kernels on GPUs, and to operations on a CPU.
NAMES = {
    "matrix products": [
        "nvjet_hsh_128x256_64x4_2x1_v_bz_coopA_NNT",
        "sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64_warpgroupsize2x1x1_execute_kernel__5x_cublas",
        "ampere_bf16_s16816gemm_bf16_128x64_ldg8_f2f_stages_64x3_nn",
        "void cutlass::Kernel2<cutlass_80_tensorop_bf16_s16816gemm_relu_bf16_256x128_32x3_nt_align8>(...)",
        "void cublasLt::splitKreduce_kernel<32, 16, int, float, __nv_bfloat16, float, __nv_bfloat16>(...)",
        "triton_tem_fused_mm_3",
        "aten::addmm",
        "aten::baddbmm",
        "mkldnn::_linear_pointwise",
    ],
    "attention": [
        "void flash::flash_fwd_kernel<Flash_fwd_kernel_traits<64, 128, 128, 4, false, cutlass::bfloat16_t>>(...)",
        "void pytorch_flash::flash_bwd_dq_dk_dv_loop_seqk_parallel_kernel<...>(pytorch_flash::Flash_bwd_params)",
        "fmha_cutlassB_bf16_aligned_64x64_k64_sm80(PyTorchMemEffAttention::AttentionBackwardKernel<...>::Params)",
        "cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_7_64x128x64_4x1x1_kernel0_0",
        "aten::_scaled_dot_product_flash_attention_for_cpu",
    ],
    "our kernels": [
        "_layer_norm_forward_kernel",
        "_linear_cross_entropy_kernel",
        "cram::layer_norm",
    ],
    "copies and elementwise": [
        "void at::native::vectorized_elementwise_kernel<4, at::native::bfloat16_copy_kernel_cuda(...)>(...)",
        "triton_poi_fused__to_copy_mm_1",
        "triton_red_fused_native_layer_norm_sdpa_0",
        "Memcpy HtoD (Pinned -> Device)",
        "Memset (Device)",
        "aten::copy_",
    ],
}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in NAMES.items() for name in names])
def test_the_kind_of_a_name(kind: str, name: str) -> None:
    assert classify((name,), OURS) == kind


def test_the_kind_of_a_part() -> None:
    assert classify(("aten::native_layer_norm", "cram::layer_norm", "Block"), OURS) == "our kernels"
    assert classify(("aten::mm", "cram::linear_cross_entropy"), OURS) == "matrix products"
    assert classify(("aten::bmm", "aten::baddbmm", OPTIMIZER), OURS) == "optimizer"
    assert classify(("aten::_softmax", "aten::scaled_dot_product_attention"), OURS) == "attention"


def test_our_kernels_are_found_by_their_names() -> None:
    assert {"_layer_norm_forward_kernel", "_layer_norm_backward_kernel", "_linear_cross_entropy_kernel"} <= OURS


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(1, 20)), max_size=20))
def test_time_that_several_kernels_share_counts_once(spans: list[tuple[int, int]]) -> None:
    intervals = [((str(number),), float(begin), float(begin + length)) for number, (begin, length) in enumerate(spans)]
    covered = {moment for begin, length in spans for moment in range(begin, begin + length)}
    assert sum(length for _, length in remove_overlap(intervals)) == len(covered)


def test_shares_and_the_gap() -> None:
    parts = [("attention", "a", 1.0), ("matrix products", "mm", 2.0), ("attention", "a", 1.0)]
    summary = summarise_parts(parts, 8.0)
    assert tuple(summary["shares"]) == KINDS
    assert summary["shares"]["attention"] == summary["shares"]["matrix products"] == 0.25
    assert summary["shares"]["gaps"] == 0.5
    assert summary["largest"][0] == {"kind": "attention", "name": "a", "share": 0.25}


def event(name: str, begin: float, end: float, device: DeviceType = DeviceType.CUDA, **more: object) -> SimpleNamespace:
    span = SimpleNamespace(start=begin, end=end)
    return SimpleNamespace(name=name, time_range=span, device_type=device, is_user_annotation=False, **more)


def test_kernels_within_the_optimizers_span_are_its_own() -> None:
    annotation = event("ProfilerStep*", 0, 1000)
    annotation.is_user_annotation = True
    events = [
        event("cudaLaunchKernel", 0, 5, DeviceType.CPU),
        annotation,
        event(UPDATE, 0, 1000),
        event(OPTIMIZER, 500, 900),
        event("nvjet_hsh", 10, 110),
        event("_layer_norm_forward_kernel", 60, 160),
        event("nvjet_hsh", 600, 700),
        event("Memcpy DtoH", 950, 960),
    ]
    parts = list_gpu_parts(events, SimpleNamespace(start=500, end=900))
    assert [(kind, name, round(seconds * 1e6)) for kind, name, seconds in parts] == [
        ("matrix products", "nvjet_hsh", 100),
        ("our kernels", "_layer_norm_forward_kernel", 50),
        ("optimizer", "nvjet_hsh", 100),
        ("copies and elementwise", "Memcpy DtoH", 10),
    ]


def test_operations_on_a_cpu_count_without_those_they_call() -> None:
    update = event(UPDATE, 0, 100, DeviceType.CPU, self_cpu_time_total=5.0, cpu_parent=None)
    outer = event("cram::layer_norm", 0, 50, DeviceType.CPU, self_cpu_time_total=10.0, cpu_parent=update)
    inner = event("aten::add", 0, 40, DeviceType.CPU, self_cpu_time_total=40.0, cpu_parent=outer)
    parts = list_cpu_parts([update, outer, inner])
    assert parts == [("our kernels", "cram::layer_norm", 1e-5), ("our kernels", "aten::add", 4e-5)]
